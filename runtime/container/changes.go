package container

import dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

// ApplyChanges applies Dockerfile instructions ("CMD", "ENV", ..., as those of Commit) to an image's configuration.
//
// Errors: ErrInvalid.
func ApplyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	inherited := true
	for _, change := range changes {
		if err := applyChange(c, change, &inherited); err != nil {
			return err
		}
	}
	return nil
}
