"""`python -m structlv`."""

from structlv.cli import main

if __name__ == "__main__":
    main()
