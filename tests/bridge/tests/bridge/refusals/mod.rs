//! Bad input, and how each protocol says no to it: one test for each row of the table that lists
//! it, and each protocol.

mod amqp;
mod mqtt;
