//! The adapter for Redox.
