"""The text of nvcc's PTX as kernels: places of parameters, widths of registers, instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(")
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.[a-z](\d+)\s+(\w+)(?:\[(\d+)\])?")
REGISTERS = re.compile(r"\.reg\s+\.([a-z]+)(\d*)\s+(.*)")
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")
REGISTER = re.compile(r"%\w+(?:\.[xyz])?")
LOCATION = re.compile(r"\.loc\s+(\d+) (\d+) (\d+)(?:.*inlined_at (\d+) (\d+) (\d+))?")
WRAPPERS = re.compile(r"simt\.h|.*\.hpp")
SYMBOL = re.compile(r"\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[(\d*)\]")


class PtxError(Exception):
    """What a kernel did that it must not do, or what this interpreter does not know."""


@dataclass(frozen=True)
class Instruction:
    """``@!%p1 ld.global.f32 %f1, [%rd2+4]``: guard ``%p1``, negated; op ``("ld", "global", "f32")``."""

    op: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str
    negated: bool
    place: str  # file and line of the source
    text: str

    def __str__(self) -> str:
        return f"{self.text}  ({self.place})"


@dataclass
class Kernel:
    name: str
    parameters: dict[str, tuple[int, int]]  # where each lies in the block of parameters, and its bytes
    shared: set[str]  # names of dynamic shared memory
    widths: dict[str, int] = field(
        default_factory=dict
    )  # bits of registers, by name or by prefix; 1: a predicate
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    steps: dict = field(default_factory=dict)  # instructions as functions, of those that a machine has met

    @property
    def parameter_bytes(self) -> int:
        return max((at + size for at, size in self.parameters.values()), default=0)

    def width(self, register: str) -> int:
        found = self.widths.get(register) or self.widths.get(register.rstrip("0123456789"))
        if found is None:
            raise PtxError(f"no declaration of register {register}")
        return found


def _parameters(text: str) -> dict[str, tuple[int, int]]:
    places, end = {}, 0
    for align, bits, name, count in PARAMETER.findall(text):
        size = int(bits) // 8
        to = int(align or size)
        start = -(-end // to) * to
        end = start + size * int(count or 1)
        places[name] = (start, end - start)
    return places


class _Places:
    """Where instructions come from: file and line; of a wrapper of what CUDA gives, of who called it."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files, self.callers = files, {}
        self.now = "?"

    def read(self, line: str) -> bool:
        found = LOCATION.match(line)
        if found is None:
            return False
        place, caller = (found[1], found[2], found[3]), found.groups()[3:]
        self.callers[place] = caller if caller[0] else None
        if place[1] == "0":  # of the compiler's own
            return True
        while WRAPPERS.fullmatch(self.files.get(place[0], "?")) and self.callers.get(place):
            place = self.callers[place]
        self.now = f"{self.files.get(place[0], '?')}:{place[1]}"
        return True


def _statements(body: str, files: dict[str, str]):
    """Each statement with its place in the source; a brace that opens or closes a scope is one too."""
    places, rest = _Places(files), ""
    for line in body.splitlines():
        line = line.split("//")[0].strip()
        if places.read(line):
            continue
        rest += " " + line
        while rest := rest.strip():
            if rest[0] in "{}":
                yield rest[0], places.now
                rest = rest[1:]
            elif found := re.match(r"(\$?\w+):", rest):
                yield found[0], places.now
                rest = rest[found.end() :]
            elif ";" in rest:
                statement, _, rest = rest.partition(";")
                yield statement.strip(), places.now
            else:
                break


class _Scopes:
    """Names of registers in nested blocks: where one declares ``%p1`` anew, that is another register."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.count, self.inner = kernel, 0, [{}]

    def declare(self, statement: str) -> None:
        kind, bits, names = REGISTERS.fullmatch(statement).groups()
        width = 1 if kind == "pred" else int(bits)
        for name in (x.strip() for x in names.split(",")):
            if found := re.fullmatch(r"(%\w+)<\d+>", name):
                self.kernel.widths[found[1]] = width
                continue
            self.count += 1
            unique = f"{name}_scope{self.count}_"
            self.inner[-1][name] = unique
            self.kernel.widths[unique] = width

    def resolve(self, text: str) -> str:
        def find(match: re.Match) -> str:
            for names in reversed(self.inner):
                if match[0] in names:
                    return names[match[0]]
            return match[0]

        return REGISTER.sub(find, text)


def _instruction(text: str, place: str) -> Instruction:
    guard, negated, rest = "", False, text
    if found := re.match(r"@(!?)(%\w+)\s+(.*)", text, re.DOTALL):
        guard, negated, rest = found[2], found[1] == "!", found[3]
    op, _, operands = rest.partition(" ")
    return Instruction(
        tuple(op.split(".")), tuple(x.strip() for x in OPERAND.findall(operands)), guard, negated, place, text
    )


def _kernel(name: str, text: str, shared: set[str], files: dict[str, str]) -> Kernel:
    head, _, body = text.partition("{")
    kernel = Kernel(name, _parameters(head), shared)
    scopes = _Scopes(kernel)
    for statement, place in _statements(body, files):
        if statement == "{":
            scopes.inner.append({})
        elif statement == "}":
            scopes.inner.pop()
            if not scopes.inner:
                return kernel
        elif statement.endswith(":"):
            kernel.labels[statement[:-1]] = len(kernel.code)
        elif statement.startswith(".reg"):
            scopes.declare(statement)
        elif statement.startswith(".pragma"):
            continue
        elif statement.startswith("."):
            raise PtxError(f"unknown directive: {statement}")
        else:
            text = " ".join(statement.split())
            kernel.code.append(_instruction(scopes.resolve(text), place))
    raise PtxError(f"{name} has no end")


class Module:
    """The kernels of a PTX file, by their mangled names; each is read when it is first asked for."""

    def __init__(self, text: str) -> None:
        self.files = {
            number: Path(name).name for number, name in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', text)
        }
        self.shared = set()
        for name, size in SYMBOL.findall(text):
            if size:
                raise PtxError(f"{name}: static shared memory, which only `Shared` may give")
            self.shared.add(name)
        starts = list(ENTRY.finditer(text))
        ends = [m.start() for m in starts[1:]] + [len(text)]
        self.texts = {m[1]: text[m.end() : end] for m, end in zip(starts, ends, strict=True)}
        self.kernels: dict[str, Kernel] = {}

    def __getitem__(self, name: str) -> Kernel:
        if name not in self.kernels:
            if name not in self.texts:
                raise PtxError(f"no kernel {name} in the PTX")
            self.kernels[name] = _kernel(name, self.texts[name], self.shared, self.files)
        return self.kernels[name]
