"""The contract between the pipeline and the trainer: recipe, schemas, ledger, manifest, and the tools that read them."""
