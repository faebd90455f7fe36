import { useState } from 'react'

export interface Action {
  running: boolean
  error: unknown
  /** Runs the work unless it is running already; true when it succeeded. */
  run: (work: () => Promise<void>) => Promise<boolean>
  clear: () => void
}

/** Something that a user starts, that takes a moment, and that may fail. */
export function useAction(): Action {
  const [state, setState] = useState<{ running: boolean; error: unknown }>({ running: false, error: undefined })
  const run = async (work: () => Promise<void>): Promise<boolean> => {
    if (state.running) return false
    setState({ running: true, error: undefined })
    try {
      await work()
      setState({ running: false, error: undefined })
      return true
    } catch (error) {
      setState({ running: false, error })
      return false
    }
  }
  return { ...state, run, clear: () => setState({ running: false, error: undefined }) }
}
