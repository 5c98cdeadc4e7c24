"""PLACEHOLDER by the lead: overwrite."""
