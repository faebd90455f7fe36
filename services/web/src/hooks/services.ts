import { createContext, use, useSyncExternalStore } from 'react'
import type { Api } from '../api/api'
import type { Session, SessionState } from '../session/session'

const Context = createContext<{ api: Api; session: Session } | null>(null)

/** Gives everything below it the API and the session. */
export const Services = Context.Provider

export function useServices(): { api: Api; session: Session } {
  const services = use(Context)
  if (services === null) throw new Error('useServices: wanted <Services> above')
  return services
}

export function useSession(): SessionState {
  const { session } = useServices()
  return useSyncExternalStore(session.subscribe, () => session.state)
}
