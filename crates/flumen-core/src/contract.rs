//! Contracts: what the columns of a data set must be.
