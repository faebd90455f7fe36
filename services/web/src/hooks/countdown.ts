import { useEffect, useState } from 'react'

/** Seconds that are left, from `seconds` down to 0. Needs a new `key` on its component to begin anew. */
export function useCountdown(seconds: number): number {
  const [left, setLeft] = useState(seconds)
  useEffect(() => {
    if (left <= 0) return
    const timer = setTimeout(() => setLeft(left - 1), 1000)
    return () => clearTimeout(timer)
  }, [left])
  return left
}
