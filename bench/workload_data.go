package bench

// size is that of the big file.
func (f *Fixtures) size() int64 { return int64(f.count(bigBlocks)) * blockSize }

// A fileOp is one of our own on the big file, and the job of fio that does the same.
type fileOp struct {
	own   func(f *Fixtures, path string) (string, error)
	rw    string
	block int64
}

var (
	seqRead = fileOp{func(_ *Fixtures, path string) (string, error) { return readBig(path) }, "read", blockSize}

	randRead = fileOp{func(f *Fixtures, path string) (string, error) { return readRandom(path, f.count(randomOps)) }, "randread", pageSize}

	seqWrite = fileOp{func(f *Fixtures, path string) (string, error) { return writeBig(path, f.count(bigBlocks)) }, "write", blockSize}

	randWrite = fileOp{func(f *Fixtures, path string) (string, error) { return writeRandom(path, f.count(randomOps)) }, "randwrite", pageSize}
)

// run is fio's where it is installed.
func (op fileOp) run(j *job) (saw string, err error) {
	path, size := j.path("big"), j.f.size()
	if j.f.NoFio || fioPath() == "" {
		return op.own(j.f, path)
	}
	io := size
	if op.block == pageSize {
		io = min(size, int64(j.f.count(randomOps))*pageSize) // it touches each page once
	}
	j.took, err = fio(path, op.rw, op.block, io, size)
	return "", err
}

// makeBig has prepare make the file in the upper.
func makeBig(j *job) error {
	_, err := writeBig(j.path("big"), j.f.count(bigBlocks))
	return err
}

func dataWork() []Workload {
	tree, big, empty := (*Fixtures).GoTree, (*Fixtures).BigFile, (*Fixtures).Empty
	whole := func(j *job) ([]string, error) {
		saw, err := readBig(j.path("big"))
		return []string{saw}, err
	}
	return []Workload{
		onUnion(data, "read-cold", "every file of the Go distribution is read", 2.0, unionWork{layers: tree, run: onTree(readAll)}),
		onUnion(data, "read-warm", "the same again", 0.9, unionWork{layers: tree, warm: once, run: onTree(readAll)}),
		onUnion(data, "read-hot", "the third time", 0.9, unionWork{layers: tree, warm: twice, run: onTree(readAll)}),
		onUnion(data, "grep-cold", "grep -r in the Go distribution", 2.0, unionWork{layers: tree, run: onTree(grep)}),
		onUnion(data, "grep-warm", "the same again", 0.9, unionWork{layers: tree, warm: once, run: onTree(grep)}),
		onUnion(data, "grep-hot", "the third time", 0.9, unionWork{layers: tree, warm: twice, run: onTree(grep)}),
		onUnion(data, "readers-cold", "every file is read, by two readers for each CPU", 2.0, unionWork{layers: tree, run: onTree(readParallel)}),
		onUnion(data, "readers-warm", "the same again", 0.9, unionWork{layers: tree, warm: once, run: onTree(readParallel)}),
		onUnion(data, "readers-hot", "the third time", 0.9, unionWork{layers: tree, warm: twice, run: onTree(readParallel)}),
		onUnion(data, "seq-read", "a file of 512 MiB is read in blocks of 1 MiB, cold; by fio where it is installed", 2.0, unionWork{layers: big, run: seqRead.run, left: whole}),
		onUnion(data, "rand-read", "20,000 pages of 4 KiB are read, cold; by fio where it is installed", 0, unionWork{layers: big, run: randRead.run, left: whole}),
		onUnion(data, "mmap-read", "the file is read through its mapping, cold", 0,
			unionWork{layers: big, run: func(j *job) (string, error) { return readMapped(j.path("big")) }}),
		onUnion(data, "seq-write", "a new file of 512 MiB is written in blocks of 1 MiB; by fio where it is installed", 1.5,
			unionWork{layers: empty, writes: true, run: seqWrite.run, left: whole}),
		onUnion(data, "rand-write", "20,000 pages of 4 KiB of a file in the upper are written; by fio where it is installed", 0,
			unionWork{layers: empty, writes: true, prepare: makeBig, run: randWrite.run, left: whole}),
		onUnion(data, "mmap-write", "20,000 pages of a file in the upper are changed through its mapping, then msync", 0, unionWork{
			layers: empty, writes: true, prepare: makeBig, left: whole,
			run: func(j *job) (string, error) {
				return writeMapped(j.path("big"), j.f.count(randomOps))
			},
		}),
	}
}
