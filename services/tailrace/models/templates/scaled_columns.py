"""The columns of a contract as linear models take them."""

from __future__ import annotations

from typing import Any

from tailrace.contracts.language.model_contract import ModelContract


def scaled(contract: ModelContract) -> Any:
    """Numbers imputed and standardised, then one column per category; unfitted."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers, texts = numbers_and_texts(contract)
    steps: list[tuple[str, Any, list[str]]] = []
    if numbers:
        filled = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numbers", make_pipeline(filled, StandardScaler()), numbers))
    if texts:
        known = [contract.features[n].categories or [] for n in texts]
        steps.append(("categories", OneHotEncoder(categories=known, handle_unknown="ignore"), texts))
    return ColumnTransformer(steps)


def numbers_and_texts(contract: ModelContract) -> tuple[list[str], list[str]]:
    numbers = [n for n, f in contract.features.items() if f.type != "category"]
    return numbers, [n for n, f in contract.features.items() if f.type == "category"]
