"""The checker: turns the syntax tree into typed core nodes; resolves names, types and operators."""
