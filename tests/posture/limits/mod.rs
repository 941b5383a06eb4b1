//! What one client can take from the others: connections, file descriptors, memory, time. Nobody is answered wrongly.

mod files;
mod flood;
mod shapes;
mod shares;
mod slow;
