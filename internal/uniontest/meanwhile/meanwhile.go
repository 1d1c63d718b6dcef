// Package meanwhile lets something happen beside what is tested.
package meanwhile

// Do does something over and over, until the function it returns is called, which waits for the last time.
func Do(fn func()) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				fn()
			}
		}
	}()
	return func() {
		close(stop)
		<-done
	}
}
