"""From checked PQL and files to people; knows files and columns, neither our tables nor GraphQL."""
