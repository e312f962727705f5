"""The door to the hosted model: requests, replies kept and read, budget, prices."""
