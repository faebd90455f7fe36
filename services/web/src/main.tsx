import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { Api } from './api/api'
import { App } from './app'
import { Services } from './hooks/services'
import { Session } from './session/session'
import './styles/base.css'
import './styles/controls.css'
import './styles/views.css'

const fetchHere = (url: string, init: RequestInit) => fetch(url, init)
const session = new Session({
  fetch: fetchHere,
  locks: { request: (name, work) => navigator.locks.request(name, work) },
  storage: localStorage,
  channel: new BroadcastChannel('slipway-session'),
  now: () => Date.now(),
})
const api = new Api(session, fetchHere)

// Counted by public/reload.js: now that this runs, nothing is missing.
sessionStorage.removeItem('slipway.reloads')

const root = document.getElementById('root')
if (root === null) throw new Error('index.html: found no element with the id root')
createRoot(root).render(
  <StrictMode>
    <Services value={{ api, session }}>
      <App />
    </Services>
  </StrictMode>,
)
void session.resume()
