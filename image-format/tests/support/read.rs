//! Reading an image as a reader does that believes nothing.

/// A buffer whose start is aligned as the reader wants it.
pub struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        use zerocopy::IntoBytes;
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self { words, len: bytes.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        use zerocopy::IntoBytes;
        &self.words.as_bytes()[..self.len]
    }
}

/// All that a reader checks, but the memory: headers, seal, tables, records.
pub fn check(file: &[u8]) -> Result<(), image_format::Fault> {
    let aligned = Aligned::new(file);
    let bytes = aligned.bytes();
    let len = bytes.len() as u64;
    let first = &bytes[..bytes.len().min(image_format::reader::PROBE_LEN)];
    let need = image_format::Need::probe(first, len)?;
    let prefix = &bytes[..usize::try_from(need.prefix_len).unwrap()];
    let image = image_format::Image::parse(prefix, len)?;
    let (at, size) = image.seal_span();
    let (at, size) = (usize::try_from(at).unwrap(), usize::try_from(size).unwrap());
    image.check_seal(&bytes[at..at + size])?;
    image_format::check::records(&image)
}
