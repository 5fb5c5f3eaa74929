"""Functions over text and arrays: readers, text extraction, filter rules, MinHash signatures. No Beam, no torch."""
