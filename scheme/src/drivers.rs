//! Drivers that a server exchanges bytes with, beside its clients.

/// Drivers that the server exchanges bytes with, such as those of network cards. Each has a number,
/// and may come and go. They are driven by threads of their own, which hold the front's
/// `DriverWork`; the front calls these methods, as it calls the server's own.
pub trait Drivers<S>: Send {
    /// Receives everything that a driver's thread has for the server.
    fn receive(&mut self, server: &mut S, driver: usize);

    /// A watched descriptor of a driver became readable: its thread is told.
    fn readable(&mut self, driver: usize);

    /// Hands everything there is to send to the drivers' threads. True if the server needs a turn
    /// because of it.
    fn transmit(&mut self, server: &mut S) -> bool;
}
