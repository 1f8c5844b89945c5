// Goroutines on their way: as travel.c. Nothing that it prints depends on time, nor on the machine.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"
)

func piece(n int) string {
	tree := make(map[string][]byte)
	for i := 0; i < 200; i++ {
		sum := sha256.Sum256([]byte(fmt.Sprint(n, i)))
		tree[fmt.Sprintf("%x", sum[:4])] = sum[:]
	}
	keys := make([]string, 0, len(tree))
	for key := range tree {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(keys, ","))))
}

// Waits until the file is there that the environment names: nobody has to be quick to save it on its way.
func wait(variable string) {
	for os.Getenv(variable) != "" {
		if _, err := os.Stat(os.Getenv(variable)); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func main() {
	const steps, workers = 150, 4
	jobs, results := make(chan int, steps), make(chan [2]string, workers)
	for i := 0; i < steps; i++ {
		jobs <- i
	}
	close(jobs)
	for w := 0; w < workers; w++ {
		go func() {
			for job := range jobs {
				text := piece(job)
				time.Sleep(40 * time.Millisecond)
				results <- [2]string{fmt.Sprintf("%03d", job), text}
			}
		}()
	}
	all := make([]string, 0, steps)
	for len(all) < steps {
		if len(all)%10 == 0 {
			fmt.Println("at", len(all))
		}
		if len(all) == 50 {
			wait("GUEST_HALF")
		}
		if len(all) == 100 {
			wait("GUEST_GO")
		}
		r := <-results
		all = append(all, r[0]+r[1])
	}
	runtime.GC()
	sort.Strings(all)
	fmt.Printf("sum %x\nPASS\n", sha256.Sum256([]byte(strings.Join(all, ""))))
}
