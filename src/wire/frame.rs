use std::io::{Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Longest frame that is accepted, in bytes.
pub const FRAME_LIMIT: usize = 64 << 20;

/// What is made room for before it arrives, in bytes.
const AT_ONCE: usize = 512 << 10;

/// The other end does not speak the protocol, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection ended.
    #[error("the connection ended")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// A frame that is longer than [`FRAME_LIMIT`].
    #[error("a frame of {0} bytes, which is more than the protocol allows")]
    TooLong(usize),
    /// A frame that is not a message.
    #[error("a frame that is not a message: {0}")]
    Garbled(postcard::Error),
}

/// A message as a frame, length included.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let frame = postcard::to_extend(message, vec![0; 4]).map_err(WireError::Garbled)?;
    seal(frame)
}

fn seal(mut frame: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let length = frame.len() - 4;
    if length > FRAME_LIMIT {
        return Err(WireError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| WireError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// A message from the bytes of a frame, without its length.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, WireError> {
    postcard::from_bytes(frame).map_err(WireError::Garbled)
}

/// Writes one message and flushes.
pub fn write_frame(writer: &mut impl Write, message: &impl Serialize) -> Result<(), WireError> {
    writer.write_all(&encode(message)?)?;
    writer.flush()?;
    Ok(())
}

/// Reads one message.
pub fn read_frame<T: DeserializeOwned>(reader: &mut impl Read) -> Result<T, WireError> {
    let mut prefix = [0; 4];
    match reader.read_exact(&mut prefix) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(WireError::Closed);
        }
        other => other?,
    }
    let length = u32::from_le_bytes(prefix) as usize;
    if length > FRAME_LIMIT {
        return Err(WireError::TooLong(length));
    }
    // Grows with what arrives, so that a length alone costs no memory.
    let mut frame = Vec::with_capacity(length.min(AT_ONCE));
    reader.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(WireError::Closed);
    }
    decode(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_a_cut_or_oversized_one_is_an_error() {
        let frame = encode(&("text", 7_u32)).unwrap();
        let back: (String, u32) = read_frame(&mut frame.as_slice()).unwrap();
        assert_eq!(back, ("text".to_owned(), 7));
        let cut = read_frame::<(String, u32)>(&mut &frame[..frame.len() - 1]);
        assert!(matches!(cut, Err(WireError::Closed)), "{cut:?}");
        let huge = read_frame::<String>(&mut [0xff; 8].as_slice());
        assert!(matches!(huge, Err(WireError::TooLong(_))), "{huge:?}");
    }
}
