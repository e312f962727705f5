"""medorchestra."""
