//! The configuration: defaults < file < environment, validated whole.
