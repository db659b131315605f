"""PQL over the columns of one bucket: scopes, kernels, one memo for all definitions of a job."""
