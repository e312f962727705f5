"""What can be known of a plan without a model; every fault with a counter-example."""
