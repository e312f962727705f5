"""The side that may use the internet and never sees a patient: guideline text in, plan out."""
