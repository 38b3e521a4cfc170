# Types for _brackets.py, which stays plain Python.
cimport cython


cdef class Scanner:
    cdef readonly list labels
    cdef readonly list arity
    cdef readonly list stack
    cdef readonly bint fresh

    @cython.locals(done=list, i=Py_ssize_t, end=Py_ssize_t, start=Py_ssize_t, c=Py_UCS4)
    cpdef list feed(self, str line)

    cdef int _node(self, str label) except -1

    cdef int _word(self, str word) except -1

    @cython.locals(node=Py_ssize_t)
    cdef int _close(self) except -1
