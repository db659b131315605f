"""Evaluates checked PQL over people in files; knows files and columns, but neither database tables nor GraphQL."""
