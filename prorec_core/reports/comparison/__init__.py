"""The report of a comparison of variants: its page, its template and its plots."""
