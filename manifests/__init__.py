"""File formats shared by pipeline and trainer (recipe, schemas, ledger, manifest), and the tools that read them."""
