"""⑫ What happens after an error: retry, stop, and which record of a batch is to blame."""
