package bench

import (
	"fmt"
	"os"

	"github.com/laminafs/lamina/bench/report"
)

// layerCounts are how many layers there are.
var layerCounts = []int{1, 16, 64, 256, 500}

// layersGoal is how much more a missing name may cost in 500 layers than in one.
const layersGoal = 1.2

func layerWork() (list []Workload) {
	for _, n := range layerCounts {
		of := func(f *Fixtures) (*Layers, error) { return f.Layers(n) }
		list = append(list, onUnion(layers, fmt.Sprintf("layers-%d-walk", n),
			fmt.Sprintf("stat of every object in %d layers with the same 100 directories, cold", n), 0,
			unionWork{layers: of, run: onTree(walk)}))
		missing := onUnion(layers, fmt.Sprintf("layers-%d-missing", n),
			fmt.Sprintf("lookup of 5,000 names that are in none of %d layers; the directories are known before", n), 0,
			unionWork{
				layers: of,
				prepare: func(j *job) error {
					_, err := statMissing(j.dir, "before", j.f.layerDirs(), j.f.layerDirs())
					return err
				},
				run: func(j *job) (string, error) { return statMissing(j.dir, "missing", j.f.layerDirs(), j.f.count(5_000)) },
			})
		if n == 500 {
			missing.Goals = append(missing.Goals, report.Goal{
				System: Laminafs, Of: report.Wall, Factor: layersGoal, Than: Laminafs, Workload: "layers-1-missing",
			})
		}
		list = append(list, missing)
	}
	return list
}

func largeWork() (list []Workload) {
	for _, dir := range []struct {
		name, text string
		n          int
	}{{"50k", "50,000", 50_000}, {"1m", "1,000,000", 1_000_000}} {
		of := func(f *Fixtures) (*Layers, error) { return f.BigDir(dir.n) }
		names := listBig
		cold, warm := 0.0, 0.0
		if dir.n == 50_000 {
			cold, warm = 1.5, 1.0
		}
		list = append(list,
			onUnion(large, "names-"+dir.name+"-list-cold", "the names in a directory of "+dir.text, cold, unionWork{layers: of, run: names}),
			onUnion(large, "names-"+dir.name+"-list-warm", "the same again", warm, unionWork{layers: of, warm: once, run: names}),
			onUnion(large, "names-"+dir.name+"-stat-one", "lstat of one of its names, cold", 0, unionWork{layers: of, run: statOne}),
			onUnion(large, "names-"+dir.name+"-walk", "stat of all of them, cold", cold, unionWork{layers: of, run: onTree(walk)}),
		)
	}
	memory := onUnion(large, "memory-1m", "stat of every object of 1,000 directories with 1,000 files each: what the server holds after it", 0,
		unionWork{layers: (*Fixtures).ManyFiles, run: onTree(walk), objects: (*Fixtures).manyObjects})
	return append(list, memory)
}

func listBig(j *job) (string, error) { return list(j.path("big")) }

func statOne(j *job) (string, error) {
	info, err := os.Lstat(j.path("big/" + nameOf(0)))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v, %d bytes", info.Mode(), info.Size()), nil
}
