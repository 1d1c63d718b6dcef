package layertar

// Recorder is told what a tar is made of, in the tar's order, so that it can be put together again from the layer's
// directory and what the recorder has kept.
//
// Slices are valid during the call. An error ends the unpacking.
type Recorder interface {
	// Segment is told of bytes that are no file's data: headers, padding, what follows the archive.
	Segment(p []byte) error

	// Data is told of data of the entry whose header ended the last segment; holes of a sparse file are zeros.
	Data(p []byte)

	// File ends an entry, of whatever type, all of whose data was told. name is as the tar spells it.
	File(name string) error
}

// maxSegment bounds the bytes that are kept before they are told: padding may be endless.
const maxSegment = 1 << 20

// recording keeps what is read of a tar besides files' data until it is told. The zero value keeps nothing.
type recording struct {
	to      Recorder // nil for nobody
	segment []byte
	inData  bool // what is read is data of a file
}

// read is told of all that is read of the tar.
func (r *recording) read(p []byte) error {
	if r.to == nil || r.inData {
		return nil
	}
	r.segment = append(r.segment, p...)
	if len(r.segment) < maxSegment {
		return nil
	}
	return r.flush()
}

func (r *recording) flush() error {
	if len(r.segment) == 0 {
		return nil
	}
	err := r.to.Segment(r.segment)
	r.segment = r.segment[:0]
	return err
}

// file ends an entry.
func (r *recording) file(name string) error {
	if r.to == nil {
		return nil
	}
	return r.to.File(name)
}

// data is told of a file's data.
func (r *recording) data(p []byte) {
	if r.to != nil {
		r.to.Data(p)
	}
}
