"""These tests need Lightning."""

import pytest

pytest.importorskip("pytorch_lightning")
