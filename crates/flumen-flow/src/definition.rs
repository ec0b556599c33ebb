//! What a flow is: read from YAML, and checked whole.
