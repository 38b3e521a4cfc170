"""These tests need Lightning."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("pytorch_lightning")
sys.path.insert(
    0, str(Path(__file__).parent)
)  # toy.py, shared by the tests and run as a script by one of them
