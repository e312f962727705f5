"""Makes a small local model fit for a plan: trains a LoRA adapter on synthetic cases. Needs the extra `finetune`."""
