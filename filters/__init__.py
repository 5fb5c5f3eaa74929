"""Pure functions over text and arrays: reading, extraction, language, rules, signatures. No Beam, no torch."""
