"""From checked expressions to one plan that all definitions of a job share."""
