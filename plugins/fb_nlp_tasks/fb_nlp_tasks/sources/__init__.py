"""Model sources: transformers text models, and LoRA adapters over them."""
