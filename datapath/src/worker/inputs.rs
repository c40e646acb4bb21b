//! The receive queues of a worker: those that it polls, and those that rest.
//!
//! A look at a queue without frames costs little, but a switch has hundreds of them and two that are busy. So a queue that brought nothing for a while
//! is put to rest: it is armed like the queues of a worker that goes to sleep, and not looked at until its guest has notified. Whoever drives the worker hears
//! the notifications, and rouses the queue. It is polled again for as long as frames come.
//!
//! Nothing is lost in between: a queue is armed first and looked at afterwards, and one that has work by then does not rest.

use crate::port::{PortNo, RxQueue};

/// So few queues are polled whether they bring frames or not: that costs less than what notifications cost guest and switch.
const FEW: usize = 4;

/// A receive queue of a worker.
pub(super) struct Input {
    pub port: PortNo,
    pub queue: Box<dyn RxQueue>,
    /// What it took more than its share, in frames.
    pub debt: u32,
    /// How many frames it brought when it was served last.
    pub brought: usize,
    /// Whether it brought nothing since [`Inputs::rest`] was called last.
    pub quiet: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Inputs {
    /// Those that are polled come first.
    all: Vec<Input>,
    polled: usize,
}

impl Inputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether any rests.
    pub fn any_rests(&self) -> bool {
        self.polled < self.all.len()
    }

    /// Those to be served in a breath.
    pub fn polled(&mut self) -> &mut [Input] {
        &mut self.all[..self.polled]
    }

    pub fn add(&mut self, port: PortNo, queue: Box<dyn RxQueue>) {
        self.all.push(Input { port, queue, debt: 0, brought: 0, quiet: false });
        self.poll(self.all.len() - 1);
    }

    pub fn remove(&mut self, port: PortNo) {
        self.polled -= self.polled().iter().filter(|input| input.port == port).count();
        self.all.retain(|input| input.port != port);
    }

    /// Puts the queues that brought nothing since the last call to rest, as long as there are more than a few; those that are costly to look at in any case.
    pub fn rest(&mut self) {
        let mut at = 0;
        while at < self.polled {
            let input = &mut self.all[at];
            if input.quiet && (self.polled > FEW || input.queue.is_costly()) {
                if !input.queue.arm() {
                    self.polled -= 1;
                    self.all.swap(at, self.polled);
                    continue;
                }
                input.queue.disarm();
            }
            input.quiet = true;
            at += 1;
        }
    }

    /// Polls the queues of `port`, which need not notify any more.
    pub fn rouse(&mut self, port: PortNo) {
        for at in 0..self.all.len() {
            let input = &mut self.all[at];
            if input.port == port {
                input.quiet = false;
                input.queue.disarm();
                if at >= self.polled {
                    self.poll(at);
                }
            }
        }
    }

    /// Counts the input at `at`, which is not polled, to those that are.
    fn poll(&mut self, at: usize) {
        self.all.swap(at, self.polled);
        self.polled += 1;
    }

    /// Asks every queue that is polled to notify of its next frame; those that rest do so already. True if there is work.
    pub fn arm(&mut self) -> bool {
        // Every queue must be armed, also behind one that has work.
        self.polled().iter_mut().map(|input| input.queue.arm()).fold(false, |any, work| any | work)
    }

    /// Takes the wish of [`Inputs::arm`] back.
    pub fn disarm(&mut self) {
        self.polled().iter_mut().for_each(|input| input.queue.disarm());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Batch;
    use crate::port::DummyPort;
    use proptest::prelude::*;

    const FRAME: [u8; 14] = [0; 14];

    fn inputs(ports: &[DummyPort]) -> Inputs {
        let mut inputs = Inputs::default();
        for (port, number) in ports.iter().zip(1..) {
            inputs.add(PortNo(number), Box::new(port.clone()));
        }
        inputs
    }

    fn ports(count: u32) -> Vec<DummyPort> {
        (1..=count).map(|number| DummyPort::new(PortNo(number))).collect()
    }

    /// Serves as a breath does. Returns the ports that brought frames, once for each.
    fn breathe(inputs: &mut Inputs) -> Vec<u32> {
        let mut batch = Batch::new();
        let mut from = Vec::new();
        for input in inputs.polled() {
            let served = input.queue.serve(&mut batch, &mut |_| ());
            input.quiet &= served == 0;
            from.extend(std::iter::repeat_n(input.port.0, served));
        }
        from
    }

    fn is_polled(inputs: &mut Inputs, port: u32) -> bool {
        inputs.polled().iter().any(|input| input.port == PortNo(port))
    }

    #[test]
    fn a_quiet_queue_rests_until_it_notifies() {
        let ports = ports(8);
        let mut inputs = inputs(&ports);
        for _ in 0..3 {
            ports[6].offer(&FRAME);
            assert_eq!(breathe(&mut inputs), [7]);
            inputs.rest();
        }
        assert_eq!(inputs.polled().len(), FEW);
        assert!(inputs.any_rests() && is_polled(&mut inputs, 7));
        // One that rests is not looked at, but notifies.
        let resting = (1..=8).find(|port| !is_polled(&mut inputs, *port)).expect("some rest");
        let port = &ports[resting as usize - 1];
        port.offer(&FRAME);
        assert_eq!((breathe(&mut inputs), port.take_notified()), (vec![], true));
        inputs.rouse(PortNo(resting));
        assert_eq!(breathe(&mut inputs), [resting]);
        // From now on it needs not notify, as long as frames come.
        for _ in 0..5 {
            inputs.rest();
            port.offer(&FRAME);
            assert_eq!((breathe(&mut inputs), port.take_notified()), (vec![resting], false));
        }
    }

    #[test]
    fn a_few_queues_never_rest() {
        let ports = ports(FEW as u32);
        let mut inputs = inputs(&ports);
        for _ in 0..4 {
            inputs.rest();
            breathe(&mut inputs);
        }
        assert!(!inputs.any_rests());
    }

    #[test]
    fn a_queue_that_has_work_when_it_is_armed_does_not_rest() {
        let ports = ports(8);
        let mut inputs = inputs(&ports);
        inputs.rest();
        ports.iter().for_each(|port| port.offer(&FRAME));
        inputs.rest();
        assert!(!inputs.any_rests());
        assert_eq!(breathe(&mut inputs).len(), 8);
    }

    #[test]
    fn queues_that_rest_are_removed_too() {
        let ports = ports(8);
        let mut inputs = inputs(&ports);
        (0..2).for_each(|_| inputs.rest());
        (1..=8).for_each(|port| inputs.remove(PortNo(port)));
        assert_eq!((inputs.len(), inputs.polled().len(), inputs.any_rests()), (0, 0, false));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(usize),
        Breathe,
        Rest,
        Hear,
        Sleep,
        Remove(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..10usize).prop_map(Step::Offer),
            4 => Just(Step::Breathe),
            3 => Just(Step::Rest),
            2 => Just(Step::Hear),
            1 => Just(Step::Sleep),
            1 => (0..10usize).prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Whatever happens in whatever order: who has frames is polled, or has notified.
        #[test]
        fn no_notification_is_lost(steps in steps()) {
            let ports = ports(10);
            let mut inputs = inputs(&ports);
            let (mut waiting, mut notified, mut removed) = ([0usize; 10], [false; 10], [false; 10]);
            for step in steps {
                match step {
                    Step::Offer(port) => {
                        ports[port].offer(&FRAME);
                        waiting[port] += 1;
                    }
                    Step::Breathe => breathe(&mut inputs).into_iter().for_each(|port| waiting[port as usize - 1] -= 1),
                    Step::Rest => inputs.rest(),
                    Step::Hear => {
                        for port in (0..10).filter(|port| std::mem::take(&mut notified[*port])) {
                            inputs.rouse(PortNo(port as u32 + 1));
                        }
                    }
                    Step::Sleep => {
                        let work = inputs.arm();
                        let polled_work = (0..10).any(|port| waiting[port] > 0 && is_polled(&mut inputs, port as u32 + 1));
                        prop_assert_eq!(work, polled_work);
                        inputs.disarm();
                    }
                    Step::Remove(port) => {
                        inputs.remove(PortNo(port as u32 + 1));
                        removed[port] = true;
                    }
                }
                for port in 0..10 {
                    notified[port] |= ports[port].take_notified();
                    prop_assert!(waiting[port] == 0 || removed[port] || notified[port] || is_polled(&mut inputs, port as u32 + 1));
                }
            }
        }
    }
}
