package bench

import "math/rand/v2"

// knowNames has prepare give run the names of all objects, in no order.
func knowNames(j *job) error {
	layers, err := j.f.GoTree()
	if err != nil {
		return err
	}
	names, err := namesBelow(layers.Plain)
	rand.New(rand.NewPCG(5, 6)).Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
	j.more = names
	return err
}

func statKnown(j *job) (string, error) { return statAll(j.dir, j.more.([]string)) }

func doUntar(j *job) (string, error) {
	archive, err := j.f.Archive()
	if err != nil {
		return "", err
	}
	return untar(j.dir, archive)
}

func metadataWork() []Workload {
	tree := (*Fixtures).GoTree
	list := []Workload{
		onUnion(metadata, "walk-cold", "stat of every object of a Go distribution in three layers (15,000 files), as find -size does", 1.5,
			unionWork{layers: tree, run: onTree(walk)}),
		onUnion(metadata, "walk-warm", "the same again", 1.0, unionWork{layers: tree, warm: once, run: onTree(walk)}),
		onUnion(metadata, "walk-hot", "the third time", 1.0, unionWork{layers: tree, warm: twice, run: onTree(walk)}),
		onUnion(metadata, "stat-cold", "lstat of every object by its path, in no order", 1.5,
			unionWork{layers: tree, prepare: knowNames, run: statKnown}),
		onUnion(metadata, "stat-warm", "the same again", 1.0, unionWork{layers: tree, prepare: knowNames, warm: once, run: statKnown}),
		onUnion(metadata, "readdir-cold", "the names in every directory", 1.5, unionWork{layers: tree, run: onTree(listAll)}),
		onUnion(metadata, "readdir-warm", "the same again", 1.0, unionWork{layers: tree, warm: once, run: onTree(listAll)}),
		onUnion(metadata, "untar", "tar -x of 10,000 small files", 3.0, unionWork{
			layers: (*Fixtures).Empty, writes: true, run: doUntar,
			left: func(j *job) ([]string, error) { return everything(j.dir, true) },
		}),
		onUnion(metadata, "rm-upper", "rm -rf of what was unpacked", 2.5, unionWork{
			layers: (*Fixtures).Empty, writes: true, run: onTree(removeAll), left: all,
			prepare: func(j *job) error {
				_, err := doUntar(j)
				return err
			},
		}),
		onUnion(metadata, "rm-lower", "rm -rf of the Go distribution below", 2.5,
			unionWork{layers: tree, writes: true, run: onTree(removeAll), left: all}),
		onUnion(metadata, "storm", "5,000 times: create, lstat, rename, and but for every tenth unlink", 2.5, unionWork{
			layers: (*Fixtures).Empty, writes: true, left: all,
			run: func(j *job) (string, error) { return storm(j.dir, j.f.count(5_000)) },
		}),
	}
	// What copies data is measured by how it compares with a copy, not by requests: no factor to fuse-overlayfs is asked.
	return append(list, onUnion("copy-up", "copyup-small", "a byte is appended to each of 2,000 lower files of 4 KiB", 0.7,
		unionWork{layers: (*Fixtures).Small, writes: true, run: onTree(appendAll), left: all}),
		onUnion("copy-up", "copyup-big", "a byte is appended to a lower file of 512 MiB", 0, unionWork{
			layers: (*Fixtures).BigFile, writes: true, left: all,
			run: func(j *job) (string, error) { return "", appendByte(j.path("big")) },
		}))
}
