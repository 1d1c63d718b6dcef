package image

// Progress is told how far an operation is. Its method may be called from several goroutines at once.
type Progress interface {
	// Update says what is done with the layer id: the beginning of a digest, or a path in an archive. status is in
	// Docker's words ("Loading layer", "Already exists", ...); current and total are bytes, total 0 where it is not
	// known or there is nothing to count.
	Update(id, status string, current, total int64)
}

type silent struct{}

func (silent) Update(string, string, int64, int64) {}

func orSilent(p Progress) Progress {
	if p == nil {
		return silent{}
	}
	return p
}
