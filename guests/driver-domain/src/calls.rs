//! How this domain makes its calls: by HVC, or with `driver-domain.calls=page` on its command line by the page that its
//! system gives it for that, as a backend in user space would.

use abi::io::{Call, result_register};
use rt::register::Register;
use rt::{hypercall, machine, println};

/// The way to make a call.
#[derive(Clone, Copy, Debug)]
pub enum Calls {
    /// HVC.
    Hypercall,
    /// The page at this address.
    Page(u64),
}

impl Calls {
    /// The way that the command line asks for, where `page` is the page's address, if there is one.
    pub fn chosen(page: Option<u64>) -> Self {
        if machine().parameter("driver-domain.calls") != Some("page") {
            return Self::Hypercall;
        }
        let Some(page) = page else {
            println!("driver-domain: the device tree names no page of calls; they are made by HVC");
            return Self::Hypercall;
        };
        println!("driver-domain: calls are made by stores to the page at {page:#x}");
        Self::Page(page)
    }

    /// Makes `call`, for channel `number`, and gives EL2's answer.
    #[inline]
    pub fn make(self, call: Call, number: u32) -> u64 {
        match self {
            Self::Hypercall => hypercall::call(call.function(), [number.into(), 0, 0, 0]),
            Self::Page(page) => by_page(page, call, number),
        }
    }
}

#[cold]
fn by_page(page: u64, call: Call, number: u32) -> u64 {
    if let Some(register) = Register::at(page + call.register()) {
        register.write(number);
    }
    let result = result_register(number).filter(|_| call.is_for_channel());
    let result = result.and_then(|offset| Register::at(page + offset)).map_or(0, Register::read);
    // A result is the low half of an answer, which is a small number of either sign.
    result.cast_signed() as u64
}
