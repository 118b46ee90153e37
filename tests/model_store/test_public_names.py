"""What a module offers is what its `__all__` says, sorted; the package offers no more."""

import importlib
import pkgutil

import pytest

import model_store

MODULES = [f"model_store.{module.name}" for module in pkgutil.iter_modules(model_store.__path__)]


@pytest.mark.parametrize("name", ["model_store", *MODULES])
def test_names_in_all_are_sorted_and_exist(name: str) -> None:
    module = importlib.import_module(name)
    # ruff's order: constants, then classes, then functions.
    order = sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert module.__all__ == order
    assert all(hasattr(module, public) for public in module.__all__)
