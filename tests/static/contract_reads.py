"""A plugin of mypy that writes down where a field of a contract's section is read, by the type that has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mypy.nodes import MemberExpr
from mypy.plugin import AttributeContext, Plugin
from mypy.types import Type

SECTIONS = "tailrace.contracts.language."
VARIABLE = "TAILRACE_CONTRACT_READS"


class ContractReads(Plugin):
    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        if not fullname.startswith(SECTIONS):
            return None

        def note(context: AttributeContext) -> Type:
            # A declaration in a class's body comes here as a name.
            if isinstance(context.context, MemberExpr) and not context.is_lvalue:
                with Path(os.environ[VARIABLE]).open("a") as reads:
                    reads.write(f"{fullname} {context.api.path}\n")
            return context.default_attr_type

        return note


def plugin(version: str) -> type[Plugin]:
    return ContractReads
