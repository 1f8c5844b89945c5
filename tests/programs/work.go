// Goroutines, timers and a garbage collector at work: a pipeline over channels, with tickers that only keep the scheduler
// busy. Nothing that it prints depends on time.
package main

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"time"
)

type node struct {
	left, right *node
	value       uint64
}

func tree(depth int, value uint64) *node {
	if depth == 0 {
		return &node{value: value}
	}
	return &node{tree(depth-1, value*2), tree(depth-1, value*2+1), value}
}

func (n *node) sum() uint64 {
	if n == nil {
		return 0
	}
	return n.value + n.left.sum() + n.right.sum()
}

func main() {
	const rounds, workers = 2000, 4
	jobs, results := make(chan int), make(chan [2]uint64)
	stop := make(chan bool)
	go func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		for {
			select {
			case <-ticker.C:
				runtime.Gosched()
			case <-stop:
				return
			}
		}
	}()
	var group sync.WaitGroup
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for job := range jobs {
				sum := tree(12, uint64(job)).sum()
				hash := sha256.Sum256([]byte(fmt.Sprint(job)))
				for i := 0; i < 3000; i++ {
					hash = sha256.Sum256(hash[:])
				}
				time.Sleep(time.Millisecond)
				results <- [2]uint64{uint64(job), sum ^ uint64(hash[0])<<32 ^ uint64(hash[1])}
			}
		}()
	}
	go func() {
		for i := 0; i < rounds; i++ {
			jobs <- i
		}
		close(jobs)
		group.Wait()
		close(results)
	}()
	all := make(map[uint64]uint64)
	for r := range results {
		all[r[0]] = r[1]
		if len(all)%100 == 0 {
			fmt.Println("done", len(all))
		}
	}
	close(stop)
	runtime.GC()
	var total uint64
	for i := uint64(0); i < rounds; i++ {
		total = total*31 + all[i]
	}
	fmt.Printf("total %016x\n", total)
}
