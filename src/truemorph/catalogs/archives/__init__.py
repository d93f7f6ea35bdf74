"""Remote archives: addresses, polite and checked transfers, and what each archive leaves in its folder."""
