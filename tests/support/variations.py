"""An operation written otherwise: aliases, fragments, directives, fields that are selected twice."""

from random import Random
from typing import Any

from graphql import (
    BooleanValueNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSchema,
    InlineFragmentNode,
    NamedTypeNode,
    NameNode,
    SelectionNode,
    SelectionSetNode,
    TypeInfo,
    TypeInfoVisitor,
    VariableNode,
    Visitor,
    get_named_type,
    parse,
    print_ast,
    visit,
)
from graphql.language.ast import ArgumentNode, DirectiveNode

VARIABLES = {"yes": True, "no": False}
"""What the directives of a varied document depend on, beside literals."""


def varied(schema: GraphQLSchema, document: str, random: Random) -> str:
    """The same question in other words; some fields may be left out by directives."""
    types = TypeInfo(schema)
    variation = _Variation(types, random)
    changed = visit(parse(document), TypeInfoVisitor(types, variation))
    text = "\n".join([print_ast(changed), *map(print_ast, variation.fragments)])
    declared = "$yes: Boolean!, $no: Boolean!"
    head, brace, rest = text.partition("{")
    head = head.replace("(", f"({declared}, ", 1) if "(" in head else f"{head.strip() or 'query'} ({declared}) "
    return head + brace + rest if "$yes" in rest or "$no" in rest else text


class _Variation(Visitor):
    def __init__(self, types: TypeInfo, random: Random) -> None:
        super().__init__()
        self.fragments: list[FragmentDefinitionNode] = []
        self._types = types
        self._random = random
        self._names = 0

    def leave_field(self, node: FieldNode, *_rest: Any) -> FieldNode:
        directives = (*(node.directives or ()), *self._directives())
        alias = node.alias
        if alias is None and self._random.random() < 0.15:
            self._names += 1
            alias = NameNode(value=f"alias{self._names}")
        return FieldNode(
            name=node.name, alias=alias, arguments=node.arguments, directives=directives,
            selection_set=node.selection_set,
        )  # fmt: skip

    def leave_selection_set(self, node: SelectionSetNode, *_rest: Any) -> SelectionSetNode:
        selections: list[SelectionNode] = list(node.selections)
        random, parent = self._random, self._types.get_parent_type()
        if random.random() < 0.2:
            selections.append(random.choice(selections))
        cut = random.randrange(len(selections) + 1)
        kept, moved = selections[:cut], selections[cut:]
        if moved and random.random() < 0.3:
            inline = InlineFragmentNode(
                type_condition=None,
                directives=self._directives(),
                selection_set=SelectionSetNode(selections=tuple(moved)),
            )
            return SelectionSetNode(selections=(*kept, inline))
        if moved and parent is not None and random.random() < 0.3:
            self._names += 1
            name, named = NameNode(value=f"Part{self._names}"), get_named_type(parent)
            self.fragments.append(
                FragmentDefinitionNode(
                    name=name, variable_definitions=(), directives=(),
                    type_condition=NamedTypeNode(name=NameNode(value=named.name)),
                    selection_set=SelectionSetNode(selections=tuple(moved)),
                )
            )  # fmt: skip
            return SelectionSetNode(selections=(*kept, FragmentSpreadNode(name=name, directives=())))
        return SelectionSetNode(selections=tuple(selections))

    def _directives(self) -> tuple[DirectiveNode, ...]:
        random = self._random
        if random.random() > 0.1:
            return ()
        name, keeps = random.choice([("include", True), ("skip", False)])
        wanted = keeps if random.random() < 0.8 else not keeps
        value: Any = BooleanValueNode(value=wanted)
        if random.random() < 0.5:
            value = VariableNode(name=NameNode(value="yes" if wanted else "no"))
        argument = ArgumentNode(name=NameNode(value="if"), value=value)
        return (DirectiveNode(name=NameNode(value=name), arguments=(argument,)),)
