"""How people spell the classes of a target, and how its contract does."""

from __future__ import annotations

from typing import Any

from tailrace.contracts.language.model_contract import ModelContract

_BOOLEANS = dict.fromkeys(("1", "1.0", "true"), "true") | dict.fromkeys(("0", "0.0", "false"), "false")


def class_text(value: Any, contract: ModelContract) -> str:
    """A class as the contract spells it: 1, 1.0, True and "1" are ``true`` where the target is boolean, and where its
    classes are texts in the order of the alphabet their numbers stand for them.
    """
    text = str(value.item() if hasattr(value, "item") else value)
    if contract.target.type == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    if text in contract.classes:
        return text
    text = text.removesuffix(".0")
    return contract.classes[int(text)] if text.isdecimal() and int(text) < _codes(contract) else text


def _codes(contract: ModelContract) -> int:
    """How many numbers stand for classes: as many as there are where they are in the order of the alphabet, in which
    scikit-learn's LabelEncoder numbers them, and none is called a number itself.
    """
    classes = contract.classes
    named = classes == sorted(classes) and not any(name.isdecimal() for name in classes)
    return len(classes) if named else 0
