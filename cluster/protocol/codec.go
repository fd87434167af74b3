package protocol

// MarshalBinary encodes the message (docs/protocol.md has the picture). It fails
// only for a node name longer than 255 bytes.
func (m Message) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// AppendBinary appends the encoded message to b.
func (m Message) AppendBinary(b []byte) ([]byte, error) { panic("unwritten") }

// UnmarshalBinary decodes exactly one message; b is not kept. After an error m
// is unchanged.
func (m *Message) UnmarshalBinary(b []byte) error { panic("unwritten") }
